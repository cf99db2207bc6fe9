"""How figures are drawn, for print and for the page: one file per figure, on matplotlib alone."""
