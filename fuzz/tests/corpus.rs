//! The committed corpus, and some random inputs, as a test on any toolchain.

use std::fs;
use std::path::Path;

/// How many random inputs each target gets.
const RANDOM: u64 = 300;

fn each(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut inputs: Vec<_> =
        fs::read_dir(&folder).expect("it is committed").map(|f| f.unwrap().path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    for input in inputs {
        eprintln!("{}", input.display());
        run(&fs::read(input).unwrap());
    }
    for seed in 1..=RANDOM {
        eprintln!("seed {seed}");
        run(&random(seed));
    }
}

/// Bytes by xorshift.
fn random(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let length = next() % 600;
    (0..length).map(|_| next() as u8).collect()
}

#[test]
fn frames() {
    each("frames", capnp_threads_fuzz::frames);
}

#[test]
fn message() {
    each("message", capnp_threads_fuzz::message);
}

#[test]
fn sequence() {
    each("sequence", capnp_threads_fuzz::sequence);
}

#[test]
fn line() {
    each("line", capnp_threads_fuzz::line);
}
