@0xa6e1d3c0914f7b02;

struct Animal {
  name @0 :Text;
  legs @1 :UInt8 = 4;
  diet @2 :Diet;

  enum Diet {
    plants @0;
    meat @1;
  }
}
