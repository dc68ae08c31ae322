"""scg beside other libraries on the same problem, in one run; whatever is not installed is named and left out."""
