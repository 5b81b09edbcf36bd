package window

import "github.com/cespare/xxhash/v2"

// An idset counts records by a hash of their event ids, so that a group knows
// whether ids can be taken for distinct: a collision costs time, never a wrong
// answer. It is a table with linear probing, without pointers: a map of so many
// ids would be most of a group's memory and of the collector's work.
type idset struct {
	slots []uint32 // 0 is free
	n     int
	// repeated is how many records share their hash with another before them.
	repeated int
}

// hashOf is never 0.
func hashOf(id string) uint32 {
	h := xxhash.Sum64String(id)
	return max(uint32(h>>32)^uint32(h), 1)
}

func (s *idset) add(h uint32) {
	if 4*(s.n+1) > 3*len(s.slots) {
		s.grow()
	}
	if s.put(h) {
		s.repeated++
	}
	s.n++
}

// known reports whether a record with a hash is there.
func (s *idset) known(h uint32) bool {
	if len(s.slots) == 0 {
		return false
	}
	mask := uint32(len(s.slots) - 1)
	i := h & mask
	for s.slots[i] != 0 && s.slots[i] != h {
		i = (i + 1) & mask
	}
	return s.slots[i] == h
}

// put takes the next free slot and reports whether the hash was there before.
func (s *idset) put(h uint32) (known bool) {
	mask := uint32(len(s.slots) - 1)
	i := h & mask
	for ; s.slots[i] != 0; i = (i + 1) & mask {
		known = known || s.slots[i] == h
	}
	s.slots[i] = h
	return known
}

func (s *idset) grow() {
	old := s.slots
	s.slots = make([]uint32, max(8, 2*len(old)))
	for _, h := range old {
		if h != 0 {
			s.put(h)
		}
	}
}

// remove forgets one record with a hash that is there.
func (s *idset) remove(h uint32) {
	mask := uint32(len(s.slots) - 1)
	i, same := h&mask, 0
	at := i
	for ; s.slots[i] != 0; i = (i + 1) & mask {
		if s.slots[i] == h {
			at = i
			same++
		}
	}
	if same > 1 {
		s.repeated--
	}
	s.n--
	// Close the gap: what probing has brought beyond it comes back.
	for i = (at + 1) & mask; s.slots[i] != 0; i = (i + 1) & mask {
		if home := s.slots[i] & mask; (i-home)&mask >= (i-at)&mask {
			s.slots[at] = s.slots[i]
			at = i
		}
	}
	s.slots[at] = 0
}
