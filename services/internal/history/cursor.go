package history

import (
	"encoding/base64"
	"encoding/binary"
)

// cursor is a place in a topic from which a query goes on. It holds no secret:
// whoever makes one up sees what the query shows from there.
type cursor struct {
	forward bool
	// query stands for what is asked.
	query [queryBytes]byte
	// positions of the partitions.
	positions []int64
}

const (
	cursorVersion = 1
	queryBytes    = 8
	// maxPartitions is the most that a topic can have.
	maxPartitions = 1024
	maxCursor     = (2 + queryBytes + binary.MaxVarintLen64*(maxPartitions+1)) * 4 / 3
)

func (c *cursor) encode() string {
	b := []byte{cursorVersion, 0}
	if c.forward {
		b[1] = 1
	}
	b = append(b, c.query[:]...)
	for _, p := range c.positions {
		b = binary.AppendUvarint(b, uint64(max(p, 0)))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// decodeCursor reads what encode wrote, and nothing else.
func decodeCursor(text string) (*cursor, error) {
	if len(text) > maxCursor {
		return nil, ErrCursor
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < 2+queryBytes || b[0] != cursorVersion || b[1] > 1 {
		return nil, ErrCursor
	}
	c := &cursor{forward: b[1] == 1, query: [queryBytes]byte(b[2:])}
	for b = b[2+queryBytes:]; len(b) > 0; {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > 1<<62 || len(c.positions) == maxPartitions {
			return nil, ErrCursor
		}
		c.positions, b = append(c.positions, int64(v)), b[n:]
	}
	if c.encode() != text { // line breaks, long numbers
		return nil, ErrCursor
	}
	return c, nil
}
