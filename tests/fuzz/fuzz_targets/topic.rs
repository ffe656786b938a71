#![no_main]
#![allow(missing_docs, reason = "a program without a main")]
libfuzzer_sys::fuzz_target!(|data: &[u8]| holm_fuzz::parsers::topic(data));
