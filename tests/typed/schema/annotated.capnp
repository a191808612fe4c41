# Names and types that are otherwise in Rust.

@0x95d13ebbda2a381d;

using Rust = import "rust.capnp";
$Rust.parentModule("generated::elsewhere");

struct Ugly $Rust.name("Pretty") {
  bad @0 :Text $Rust.name("good") $Rust.option;
  list @1 :List(Ugly) $Rust.option;
  kind @2 :Grim $Rust.name("sort");
  next @3 :Ugly $Rust.option;
  plain @4 :Surly;

  worse :group $Rust.name("better") {
    text @5 :Text $Rust.option;
    who @6 :Surly $Rust.name("someone");
  }

  enum Grim $Rust.name("Bright") {
    dark @0 $Rust.name("light");
    dim @1;
  }
}

interface Surly $Rust.name("Friendly") {
  greet @0 Ugly -> (ugly :Ugly, gruff :Text $Rust.name("kind"));
}
