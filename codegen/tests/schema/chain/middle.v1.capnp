@0xa1f0c2d3e4b59687;

using Alias = import "far/leaf.capnp".Leaf;
