"""What a person reads of finished runs: one HTML page, a Markdown summary and the model card.

Records in, text out: `facts` reads a run folder, the modules named after parts of the page turn it into `blocks`, and
`html` and `markdown` write these.
"""
