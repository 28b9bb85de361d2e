"""The report on stored results: what is shown (views, history), charts, the page, and the README's table (readme)."""
