//! Do profiles conform to what vendors document? Each against a server that was written from the vendor's documents.

mod broken;
mod eloqua;
mod klaviyo;
mod live;
mod lytics;
mod own;
mod scene;
