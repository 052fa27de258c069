package evidence

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Tree is the RFC 6962 Merkle tree over the leaves of a log. It keeps every
// node in memory: two hashes, 64 bytes, for each leaf. It is not safe for
// concurrent use.
type Tree struct {
	size   uint64
	hashes []tlog.Hash
}

// Size is the number of leaves.
func (t *Tree) Size() uint64 { return t.size }

// Add appends a leaf.
func (t *Tree) Add(leaf []byte) error {
	nodes, err := tlog.StoredHashes(int64(t.size), leaf, t)
	if err != nil {
		return fmt.Errorf("hash leaf %d: %w", t.size, err)
	}
	t.hashes = append(t.hashes, nodes...)
	t.size++
	return nil
}

// Root is the root hash of the first size leaves.
func (t *Tree) Root(size uint64) (tlog.Hash, error) {
	if size > t.size {
		return tlog.Hash{}, fmt.Errorf("tree has %d leaves, asked was the root of %d", t.size, size)
	}
	return tlog.TreeHash(int64(size), t)
}

// Leaf is the hash of leaf n.
func (t *Tree) Leaf(n uint64) tlog.Hash { return t.hashes[tlog.StoredHashIndex(0, int64(n))] }

// ReadHashes implements [tlog.HashReader].
func (t *Tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, at := range indexes {
		if at < 0 || at >= int64(len(t.hashes)) {
			return nil, fmt.Errorf("no hash %d in a tree of %d leaves", at, t.size)
		}
		out[i] = t.hashes[at]
	}
	return out, nil
}

// tileHeight and TileWidth are fixed by tlog-tiles.
const tileHeight = 8

// TileWidth is the number of hashes or entries in a full tile.
const TileWidth = 1 << tileHeight

// Tile names a tile or an entry bundle of tlog-tiles.
type Tile struct {
	Entries bool
	Level   int // 0 for an entry bundle
	N       uint64
	Width   int // 1 to TileWidth
}

// Path is the tile's path, such as tile/0/x001/234 or tile/entries/000.p/7.
func (t Tile) Path() string {
	level := "entries"
	if !t.Entries {
		level = strconv.Itoa(t.Level)
	}
	n := fmt.Sprintf("%03d", t.N%1000)
	for rest := t.N / 1000; rest > 0; rest /= 1000 {
		n = fmt.Sprintf("x%03d/%s", rest%1000, n)
	}
	path := "tile/" + level + "/" + n
	if t.Width < TileWidth {
		path += fmt.Sprintf(".p/%d", t.Width)
	}
	return path
}

// ParseTilePath is the inverse of [Tile.Path]; it accepts no other spelling.
func ParseTilePath(path string) (Tile, error) {
	bad := fmt.Errorf("%.120q is not the path of a tile", path)
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok {
		return Tile{}, bad
	}
	level, rest, _ := strings.Cut(rest, "/")
	t := Tile{Width: TileWidth, Entries: level == "entries"}
	var err error
	if !t.Entries {
		if t.Level, err = strconv.Atoi(level); err != nil {
			return Tile{}, bad
		}
	}
	number, width, partial := strings.Cut(rest, ".p/")
	if partial {
		if t.Width, err = strconv.Atoi(width); err != nil {
			return Tile{}, bad
		}
	}
	digits := strings.NewReplacer("x", "", "/", "").Replace(number)
	if t.N, err = strconv.ParseUint(digits, 10, 63); err != nil {
		return Tile{}, bad
	}
	if t.Width < 1 || t.Width > TileWidth || t.Level < 0 || t.Level > 63/tileHeight || t.Path() != path {
		return Tile{}, bad
	}
	return t, nil
}

// NewTiles are the tiles that a tree of size leaves has and one of old leaves
// had not, hashes and entries, and no partial tile that a fuller one replaces.
func NewTiles(old, size uint64) []Tile {
	var out []Tile
	for _, t := range tlog.NewTiles(tileHeight, int64(old), int64(size)) {
		out = append(out, Tile{Level: t.L, N: uint64(t.N), Width: t.W})
		if t.L == 0 {
			out = append(out, Tile{Entries: true, N: uint64(t.N), Width: t.W})
		}
	}
	return out
}

// Within says whether a tree of size leaves has this tile.
func (t Tile) Within(size uint64) bool {
	nodes := size >> (tileHeight * t.Level)
	return t.N <= nodes/TileWidth && t.N*TileWidth+uint64(t.Width) <= nodes
}

// TileData is the content of a tile of hashes.
func (t *Tree) TileData(tile Tile) ([]byte, error) {
	if tile.Entries || !tile.Within(t.size) {
		return nil, fmt.Errorf("a tree of %d leaves has no tile %s", t.size, tile.Path())
	}
	data, err := tlog.ReadTileData(tlog.Tile{H: tileHeight, L: tile.Level, N: int64(tile.N), W: tile.Width}, t)
	if err != nil {
		return nil, fmt.Errorf("read tile %s: %w", tile.Path(), err)
	}
	return data, nil
}

// AppendEntry frames an envelope as tlog-tiles does: its length as a big-endian
// uint16, then its bytes. Segments and entry bundles are sequences of these.
func AppendEntry(b, envelope []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(envelope)))
	return append(b, envelope...)
}

// Entries splits what [AppendEntry] framed. With an error it returns the
// entries that stand before the damage.
func Entries(b []byte) ([][]byte, error) {
	var out [][]byte
	for len(b) > 0 {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return out, fmt.Errorf("entry %d is cut off", len(out))
		}
		n := 2 + int(binary.BigEndian.Uint16(b))
		out = append(out, b[2:n])
		b = b[n:]
	}
	return out, nil
}
