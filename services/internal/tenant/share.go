package tenant

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"slices"
)

// Share returns the partitions, of a topic with count, that a tenant's
// requests go to: size of them, or half of all where size is 0. It is the same
// in every process, and each tenant's share is another, so that no tenant
// can fill all partitions. The result is sorted by partition.
func Share(tenant string, count, size int) []int {
	if size <= 0 {
		size = (count + 1) / 2
	}
	size = min(size, count)
	// Rendezvous hashing: each partition is ranked by its own hash.
	type ranked struct {
		partition int
		rank      uint64
	}
	all := make([]ranked, count)
	for p := range all {
		all[p] = ranked{p, rank(tenant, p)}
	}
	slices.SortFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(a.partition, b.partition))
	})
	share := make([]int, size)
	for i := range share {
		share[i] = all[i].partition
	}
	slices.Sort(share)
	return share
}

func rank(tenant string, partition int) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(partition)))
	_, _ = h.Write([]byte(tenant))
	// FNV's high bits move little with the last bytes: mix them.
	v := h.Sum64()
	v = (v ^ v>>33) * 0xff51afd7ed558ccd
	v = (v ^ v>>33) * 0xc4ceb9fe1a85ec53
	return v ^ v>>33
}
