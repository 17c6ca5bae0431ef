"""One memory cell from its transistors: technologies, static noise margins, failure probabilities."""
