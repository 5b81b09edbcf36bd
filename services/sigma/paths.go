package sigma

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"
)

// maxDots bounds the dots of a field's name: ways to split it grow by their
// square.
const maxDots = 30

// paths are the fields that a scan collects, as a graph of prefixes. A field
// a.b.c may be the key "a.b.c", or "c" in an object under "a.b", and so on; all
// ways of splitting meet at the node of the prefix that they have consumed.
type paths struct {
	nodes []pathNode
	edges int
}

// pathNode stands for a consumed prefix.
type pathNode struct {
	slot  int32  // of the field that ends here, or −1
	mask  uint32 // of table, whose length is a power of two; 0 with no table
	table []pathEdge
	// rivals are the places in table of the edges whose key begins another's or
	// begins with it ("a" and "a.b"), so that one object may give a field twice;
	// longest key first.
	rivals []int32
}

// pathEdge leads from a prefix by one literal key.
type pathEdge struct {
	key   string // empty: a free place
	used  bool
	child int32
	id    int32
	group uint64 // a bit that rivals have in common; 0 without any
}

// newPaths builds the graph for the fields named by slot; slot names that are
// empty are left out.
func newPaths(fields map[string]int) *paths {
	type link struct{ key, to string }
	links := map[string][]link{} // by prefix; "" with root marks the start
	const root = "\x00root"
	known := map[[2]string]bool{}
	ends := map[string]int{}
	for _, name := range sortedKeys(fields) {
		ends[name] = fields[name]
		starts := []int{0}
		for i := range len(name) {
			if name[i] == '.' {
				starts = append(starts, i+1)
			}
		}
		for _, from := range starts {
			prefix := root
			if from > 0 {
				prefix = name[:from-1]
			}
			for _, end := range append(starts[1:], len(name)+1) {
				if end-1 < from {
					continue
				}
				to := name[:end-1]
				if !known[[2]string{prefix, to}] {
					known[[2]string{prefix, to}] = true
					links[prefix] = append(links[prefix], link{name[from : end-1], to})
				}
			}
		}
	}
	p := &paths{}
	number := map[string]int32{}
	var add func(prefix string) int32
	add = func(prefix string) int32 {
		if n, ok := number[prefix]; ok {
			return n
		}
		n := int32(len(p.nodes))
		number[prefix] = n
		node := pathNode{slot: -1}
		if prefix != root {
			if slot, ok := ends[prefix]; ok {
				node.slot = int32(slot)
			}
		}
		p.nodes = append(p.nodes, node)
		if out := links[prefix]; len(out) > 0 {
			size := 1 << bits.Len(uint(2*len(out)))
			table := make([]pathEdge, size)
			mask := uint32(size - 1)
			for _, l := range out {
				at := uint32(hashBytes([]byte(l.key))) & mask
				for table[at].used {
					at = (at + 1) & mask
				}
				table[at] = pathEdge{key: l.key, used: true, id: int32(p.edges), child: add(l.to)}
				p.edges++
			}
			p.nodes[n].table, p.nodes[n].mask, p.nodes[n].rivals = table, mask, rivals(table)
		}
		return n
	}
	add(root)
	return p
}

// rivals finds the edges of a table that have rivals, and gives these a bit in
// common. Others may have the same.
func rivals(table []pathEdge) []int32 {
	places := map[string]int{}
	for i, e := range table {
		if e.used {
			places[e.key] = i
		}
	}
	bit := 0
	for _, key := range sortedKeys(places) { // what begins another stands before it
		e := &table[places[key]]
		for i := range len(key) {
			if key[i] != '.' {
				continue
			}
			first, ok := places[key[:i]]
			if !ok {
				continue
			}
			if table[first].group == 0 {
				table[first].group = 1 << (bit % 64)
				bit++
			}
			e.group = table[first].group
			break // the shortest: all that begin with it have its bit
		}
	}
	var order []int32
	for i := range table {
		if table[i].group != 0 {
			order = append(order, int32(i))
		}
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(len(table[b].key)-len(table[a].key), strings.Compare(table[a].key, table[b].key))
	})
	return order
}

// find is the edge of a key, or nil.
func (n *pathNode) find(key []byte) *pathEdge {
	if n.table == nil {
		return nil
	}
	for at := uint32(hashBytes(key)) & n.mask; ; at = (at + 1) & n.mask {
		e := &n.table[at]
		if !e.used {
			return nil
		}
		if e.key == string(key) {
			return e
		}
	}
}

// hashBytes mixes length, head and tail: enough to tell field names and values
// of rules apart. Tables are filled from rules only, so events can't degrade
// them.
func hashBytes(b []byte) uint64 {
	const k1, k2 = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F
	n := len(b)
	var head, tail uint64
	switch {
	case n >= 8:
		head, tail = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[n-8:])
		if n > 16 {
			mid := b[n/2-4:]
			tail ^= bits.RotateLeft64(binary.LittleEndian.Uint64(mid), 23)
		}
	case n >= 4:
		head, tail = uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[n-4:]))
	case n > 0:
		head, tail = uint64(b[0])|uint64(b[n/2])<<8, uint64(b[n-1])
	}
	h := (head ^ uint64(n)) * k1
	h ^= h >> 29
	h = (h ^ tail) * k2
	return h ^ h>>32
}
