# Everywhere that a capability can stand.

@0xcdc3256df3a1bd99;

interface Item {
  label @0 () -> (label :Text);
}

struct Holder {
  item @0 :Item;
  inner @1 :Holder;
}

struct Crate {
  item @0 :Item;
  holder @1 :Holder;

  side :group {
    item @2 :Item;
    back :group {
      item @3 :Item;
      holder @4 :Holder;
    }
  }

  union {
    nothing @5 :Void;
    one @6 :Item;
    many @7 :List(Item);
    held @8 :Holder;
    two :group {
      left @9 :Item;
      right @10 :Item;
    }
  }

  items @11 :List(Item);
  holders @12 :List(Holder);
  table @13 :List(List(Item));

  pick :union {
    none @14 :Void;
    item @15 :Item;
    any @16 :AnyPointer;
  }
}

struct Untyped {
  pointer @0 :AnyPointer;
  struct @1 :AnyStruct;
  list @2 :AnyList;
  capability @3 :Capability;
}

interface Depot {
  # Gives back what it is given, put together anew.

  store @0 (crate :Crate) -> (crate :Crate);
  untyped @1 Untyped -> Untyped;
  item @2 (item :Item) -> (item :Item);
  items @3 (items :List(Item)) -> (items :List(Item));
  pointer @4 (pointer :AnyPointer) -> (pointer :AnyPointer);
  struct @5 (struct :AnyStruct) -> (struct :AnyStruct);
  list @6 (list :AnyList) -> (list :AnyList);
  capability @7 (capability :Capability) -> (capability :Capability);
  labels @8 (crate :Crate) -> (labels :List(Text));
  # The labels of all items, called one by one.
}
