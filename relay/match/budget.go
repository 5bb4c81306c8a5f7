package match

import "errors"

// ErrBudget is the error of an evaluation that has been given up because it took too many steps; T18. It depends on
// nothing but the query and the document, so that a further try ends in the same way.
var ErrBudget = errors.New("the path takes too many steps on this document; write one that selects less on the way")

// maxSteps is how many steps one evaluation may take. A step is a value looked at, or as much work: ten nanoseconds
// mostly, fifty with the worst of regular expressions. So the longest evaluation takes some hundredths of a second,
// seldom a tenth. A plain filter takes about five for each value of a document.
const maxSteps = 2_000_000

const (
	bytesPerStep    = 16 // of strings compared or counted
	stepsPerIndexed = 8  // for each member when an object is indexed
	stepsPerNode    = 8  // for each node that Select returns, for the memory it takes
)

// budget counts down the steps of one evaluation.
type budget struct{ left int }

// spend takes n steps and reports whether they were there. From the first time that they were not, it never says
// true again.
func (b *budget) spend(n int) bool {
	b.left -= n
	return b.left >= 0
}

// err returns ErrBudget if the budget was exceeded.
func (b *budget) err() error {
	if b.left < 0 {
		return ErrBudget
	}
	return nil
}
