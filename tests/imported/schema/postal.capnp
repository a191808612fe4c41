# What another crate has to offer.

@0xac887edc76b04406;

interface Office {
  send @0 (parcel :Parcel) -> (receipt :Receipt);
  flood @1 (parcel :Parcel) -> stream;

  interface Receipt {
    stamp @0 () -> (stamp :Stamp);
  }
}

struct Parcel {
  to @0 :Text;
  weight @1 :UInt32 = 5;
  sender @2 :Office;
}

struct Bag(T) {
  content @0 :T;
  office @1 :Office;
}

enum Stamp {
  red @0;
  blue @1;
}

interface Store(T) {
  keep @0 (thing :T) -> (kept :UInt32);
  bring @1 () -> Bag(T);
}

interface Gen {
  # A keyword since the edition of 2024.

  gen @0 (gen :Text) -> (gen :Gen);
}
