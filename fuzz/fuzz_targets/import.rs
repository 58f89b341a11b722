#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cortado_fuzz::import::run(data));
