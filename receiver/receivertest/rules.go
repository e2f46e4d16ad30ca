package receivertest

import "slices"

// rules are those of Receiver.Do, by number.
var rules = slices.Concat(runRules, waitRules, recordRules, goneRules, circleRules, txRules, seqRules, doubtRules, moreRules)
