"""What is there to be read: the catalog, verified local copies, and which segments a question can leave out."""
