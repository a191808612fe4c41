# Calls that the tests of other implementations make, in a harbour of our own.

@0xea38cc7838253b5f;

struct Cargo {
  # A bit of everything.

  flag @0 :Bool;
  tiny @1 :Int8;
  large @2 :Int64;
  ratio @3 :Float64;
  label @4 :Text;
  bytes @5 :Data;
  inside @6 :Cargo;
  numbers @7 :List(Int32);
  labels @8 :List(Text);
  more @9 :List(Cargo);
}

interface Ship {
  hail @0 (number :UInt32, loud :Bool, call :Int32 = -1) -> (reply :Text);
  scuttle @1 () -> ();
  # Nobody implements it.
  load @2 (cargo :Cargo);

  pilot @3 () -> (pilot :Pilot);
  clerk @4 () -> (clerk :Clerk);
  agent @5 () -> (agent :Agent);
  harbour @6 () -> (harbour :Harbour);
}

interface Steamer extends(Ship) {
  whistle @0 ();
  stow @1 Cargo -> ();
  unload @2 () -> Cargo;
}

interface Liner extends(Steamer) {}

interface Pilot {
  guide @0 (number :UInt32, ship :Ship) -> (note :Text, berth :Berth);
  point @1 (ship :Ship, thing :AnyPointer, fleet :List(Ship)) -> ();
  guideAny @2 (number :UInt32, ship :Capability) -> (note :Text, berth :AnyBerth);
  guideAhead @3 () -> (berth :Berth);
  # Makes its pipeline known, and does not return.

  struct Berth {
    ship @0 :Ship;
  }

  struct AnyBerth {
    ship @0 :Capability;
  }
}

interface Counter {
  count @0 (expected :UInt32) -> (number :UInt32);
}

interface Clerk {
  struct Filed {
    number @0 :UInt32;
    note @1 :Text;
    counter @2 :Counter;
  }

  file @0 (number :Int32, note :Text) -> Filed;
}

interface Agent {
  file @0 (number :Int32, clerk :Clerk) -> Clerk.Filed;
}

interface Belt {
  coal @0 (weight :UInt32) -> stream;
  ore @1 (weight :UInt32) -> stream;
  weigh @2 () -> (coal :UInt32, ore :UInt32);
}

interface Rope {}

interface Harbour extends(Counter) {
  hailFrom @0 (ship :Ship) -> (note :Text);
  hailWhenResolved @1 (ship :Ship) -> (note :Text);
  neverReturn @2 (ship :Ship) -> (copy :Ship);
  moor @3 (ship :Ship) -> ();
  hailMoored @4 (call :Int32 = -1) -> (note :Text);
  moored @5 () -> (ship :Ship);
  echo @6 (counter :Counter) -> (counter :Counter);
  untilCanceled @7 (ship :Ship) -> ();
  withDefaults @8 (a :Text, b :UInt32 = 88, c :Text = "calm") -> (d :Text, e :Text = "ebb");
  withNullDefault @9 (a :Text, b :Ship = null) -> (given :Bool);
  rope @10 () -> (rope :Rope);
  nowhere @11 () -> (nowhere :Harbour);
  wreck @12 ();
  wreckOf @13 (ship :Ship) -> ();
  wreckWithDetail @14 ();
}

interface Customs {
  make @0 () -> (chest :Chest);
  pass @1 (chest :Chest, tail :Bool) -> Found;
  search @2 (chest :Chest, tail :Bool) -> Found;
  back @3 (chest :Chest) -> (chest :Chest);
  waitForever @4 ();

  interface Chest {
    pass @0 () -> Found;
    search @1 () -> Found;
  }

  struct Found {
    text @0 :Text;
  }
}

struct Hold {
  chest @0 :Customs.Chest;
  chests @1 :List(Customs.Chest);
}

struct Fleet {
  list @0 :List(Vessel);
  struct Vessel {
    name @0 :Text;
    ship @1 :Ship;
  }
}

interface Sailors {
  transfer @0 Fleet -> Fleet;
}

struct Deep(Foo, Bar) {
  foo @0 :Foo;
  bar @1 :Bar;
  turned @2 :Deep(Bar, Foo);
  inners @3 :List(Inner);

  union {
    nothing @4 :Void;
    some :group {
      number @5 :Int32;
      foo @6 :Foo;
      bar @7 :Bar;
    }
  }

  struct Inner {
    foo @0 :Foo;
    bar @1 :Bar;
  }

  struct Inner2(Baz) {
    baz @0 :Baz;
    inner @1 :Inner;
    free @2 :Deep.Inner;

    struct Deeper(Qux) {
      foo @0 :Foo;
      baz @1 :Baz;
      qux @2 :Qux;

      interface Deepest(Bubble) {
        call @0 (bubble :Bubble) -> (foo :Foo, deeper :Deeper(Text));
      }
    }
  }

  interface Diver(Baz) {
    dive @0 Inner2(Text) -> (baz :Baz, deep :Deep(Cargo, Text));
  }

  using Alias = Foo;
  using AliasInner = Inner2(Text);

  struct Aliases {
    foo @0 :Alias;
    inner @1 :AliasInner;
  }
}

struct Either(A, B) {
  union {
    a @0 :A;
    b @1 :B;
  }
}

interface Implied {
  call @0 [T, U] (first :T, second :U) -> Deep(T, U);
}

interface ImpliedIn(V) {
  call @0 [T] (first :T, second :V) -> Deep(T, V);
}

struct Users {
  diver @0 :Deep(Cargo, Text).Diver(Data);
  either @1 :Either(Text, Ship);
  aliases @2 :Deep(Text, Cargo).Aliases;
  unspecified @3 :Deep;
}

interface Words {
  delete @0 ();
  class @1 ();
  void @2 ();
  return @3 ();
}
