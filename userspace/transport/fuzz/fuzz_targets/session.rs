//! A peer that has sessions and their keys sends whatever the fuzzer likes, while time passes and calls go both ways.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollfree_simulator::hostile::survive;

fuzz_target!(|program: &[u8]| survive(program, &mut || {}));
