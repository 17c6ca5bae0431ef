"""What rows say: intervals over chips, Pareto fronts, tables."""
