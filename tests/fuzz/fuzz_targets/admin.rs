//! `HOLM_DATA` names the data folder of a node that runs: without its coverage this is mutation only.
#![no_main]
#![allow(missing_docs, reason = "a program without a main")]

use std::path::PathBuf;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let folder = PathBuf::from(std::env::var_os("HOLM_DATA").expect("HOLM_DATA"));
    holm_fuzz::admin::request(&folder.join("admin.sock"), data);
});
