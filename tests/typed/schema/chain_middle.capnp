# What the end of the chain is imported by, and gives on under other names.

@0xf0a86ff16d8b8f0e;

using Base = import "chain_base.capnp";
using TextMark = Base.Base(Text).Mark;

interface Middle(U) extends(Base.Base(U)) {
  middle @0 TextMark -> ();
}
