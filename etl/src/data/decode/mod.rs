//! How do the bytes of one value become a primitive? For cells and Arrow alike.
