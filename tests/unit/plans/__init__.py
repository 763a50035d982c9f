"""Small trees, and the plans that they give."""
