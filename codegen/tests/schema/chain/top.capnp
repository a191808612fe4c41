@0xd0a3f7e1c2b45968;

using Middle = import "middle.v1.capnp";

struct Top {
  leaf @0 :Middle.Alias;
  kind @1 :Middle.Alias.Kind;
}
