"""Export of dataset files to the layouts of other tools."""
