"""How good a result is: scores, predictions of data left out, Cramér-Rao bounds."""
