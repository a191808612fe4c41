@0xd3a1b2c4d5e6f708;

struct Person {
  name @0 :Text;
}
