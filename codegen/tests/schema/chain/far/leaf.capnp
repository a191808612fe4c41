@0xee01d2c3b4a59687;

struct Leaf {
  kind @0 :Kind;

  enum Kind {
    round @0;
    square @1;
  }
}
