//! What the fuzz targets check. Each takes any bytes at all, and panics where a promise is broken.

pub mod admin;
pub mod broker;
pub mod parsers;
