"""What people look at. One file a view: plain data first, drawing second."""
