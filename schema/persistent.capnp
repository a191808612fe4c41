# Level 2: capabilities that outlive a connection.

@0xb8630836983feed7;

interface Persistent@0xc8cb212fcd9f5691(SturdyRef, Owner) {
  # An object that can be found again later. What its name looks like (`SturdyRef`) and who may use the name
  # (`Owner`) is agreed among the vats of one realm.

  save @0 SaveParams -> SaveResults;
  # Makes a name that leads back to this object on another connection.

  struct SaveParams {
    # The parameters of `save`.

    sealFor @0 :Owner;
    # Who alone may use the name. Where null is allowed, it means anyone.
  }

  struct SaveResults {
    # The results of `save`.

    sturdyRef @0 :SturdyRef;
    # The name.
  }
}

annotation persistent(interface, field) :Void;
# Marks interfaces whose objects are always persistent, and fields whose capabilities are. An interface does
# not extend `Persistent` for that: what it would be a `Persistent` of depends on the realm.
