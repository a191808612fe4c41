@0xbd7a2fd7c4b5e801;

using Animal = import "sub/animal.capnp".Animal;
using Person = import "/names/people.capnp".Person;

struct Shift {
  # Who works when.

  keeper @0 :Person;
  hours @1 :UInt8;
  keys @2 :Keeper;
}

interface Keeper {
  # Looks after animals.

  feed @0 (animal :Animal, grams :UInt32) -> (left :UInt32);
  # Feeds one of them.

  shift @1 () -> Shift;
}
