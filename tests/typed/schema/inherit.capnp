# Interfaces that extend others.

@0xb90d0e270b7b8502;

interface Living {
  # Extended by others, and by itself the type of nothing.

  age @0 () -> (years :UInt16);
}

interface Named extends(Living) {
  # The common base of all animals.

  name @0 () -> (name :Text);
  rename @1 (name :Text) -> ();
}

interface Walker extends(Named) {
  walk @0 (steps :UInt32) -> (total :UInt32);
}

interface Swimmer extends(Named) {
  swim @0 (strokes :UInt32) -> (total :UInt32);
}

interface Quiet {
  # Has no methods: what it says, it says by being there.
}

interface Duck extends(Walker, Swimmer) {
  # A diamond: what is named stands above both sides.

  quack @0 (times :UInt8) -> (sound :Text);
}

interface Mallard extends(Duck, Quiet) {
  # Adds nothing but a base.
}

interface Pond {
  # Takes animals as whatever they are, and gives them back as something else.

  admit @0 (guest :Swimmer) -> (guest :Named);
  quietest @1 (guests :List(Quiet)) -> (guest :Quiet);
}
