"""Tables, figures, numbers and pages made from result files; no model code."""
