//! Mistakes that users make do not compile, and the compiler says what is wrong.
//!
//! What it says depends on its version a little. After a new one, look whether a user would still understand it,
//! and write the new texts with `TRYBUILD=overwrite cargo test --test compile_fail`.

#[test]
fn mistakes_do_not_compile_and_the_compiler_says_why() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
