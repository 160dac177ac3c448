"""From files and Hub data sets to checked, labelled rows, and from those to token batches."""
