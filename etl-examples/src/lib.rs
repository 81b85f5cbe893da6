//! How is the engine embedded? The programs are in `examples/`; here the README's one is compiled.

#![cfg_attr(doctest, doc = include_str!("../../README.md"))]
