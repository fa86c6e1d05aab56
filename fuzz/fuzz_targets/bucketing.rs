#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| podium_tests::entry_points::bucketing(data));
