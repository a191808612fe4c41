# The types that `rpc.capnp` leaves open, for the network of two vats: one connection, and no third party.

@0xa184c7885cdaf2a1;

enum Side {
  # One of the two vats.

  server @0;
  # The vat that was connected to.

  client @1;
  # The vat that connected.
}

struct VatId {
  # Names a vat of the network.

  side @0 :Side;
  # Which of the two.
}

struct ThirdPartyCompletion {
  # Only used by joins, as there is no third party. (In 2017: `ProvisionId`.)

  joinId @0 :UInt32;
  # The number from `JoinKeyPart`.
}

struct ThirdPartyToAwait {}
# Not used: there is no third party. (In 2017: `RecipientId`.)

struct ThirdPartyToContact {}
# Not used: there is no third party. (In 2017: `ThirdPartyCapId`.)

struct JoinKeyPart {
  # One of the requests that make up a join. All of them come over the one connection.

  joinId @0 :UInt32;
  # Names the join. The asking vat chooses the number, and may use it again when all parts are finished.

  partCount @1 :UInt16;
  # How many parts the join has.

  partNum @2 :UInt16;
  # Which part this is, counted from 0.
}

struct JoinResult {
  # The answer to one part of a join.

  joinId @0 :UInt32;
  # The number from `JoinKeyPart`.

  succeeded @1 :Bool;
  # Whether all capabilities are one. The same in the answers to all parts.

  cap @2 :Capability;
  # The capability that all of them are. Not null in just one of the answers.
}
