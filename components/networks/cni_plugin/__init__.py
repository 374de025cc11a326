"""The plugin's side of the CNI specification, and the packing of a plugin into one executable
file."""
