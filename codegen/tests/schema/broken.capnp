@0x8f2c6b1a7e5d4c03;

struct Broken {
  field @0 :Missing;
}
