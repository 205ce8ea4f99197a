"""`autoglm status` and `autoglm explain`."""
