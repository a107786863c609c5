"""Evidence over a whole history of checks that may overlap and may be exceptional.

**Exceptional checks.** All customers share what happens in a period: a campaign, a strike. Customers are
independent of each other given that, so a test on customers is valid for the mean *in this period*, and the
margin of the null hypothesis covers ordinary periods. A share `exceptional` of the periods may be of any
kind. Let E be the e-value of a check and K the largest that is used. min(E, K) has a mean of at most 1 in an
ordinary period and of at most K in an exceptional one, so min(E, K) / (1 + exceptional (K - 1)) is an e-value
for both together, whatever happened before. This is the truncation that makes a likelihood ratio robust
(Huber 1965, Ann. Math. Statist. 36; as e-values: Saha & Ramdas 2024, arXiv 2408.14015).

**Overlap.** With outcomes of 90 days and a check every 30, three checks in a row share outcomes. The e-value
of a check is valid given the outcomes that are known when its predictions are made, which are those of three
checks before. So every third check is one stream, in which products are supermartingales. The mean of the
streams' products is not one, since each is a supermartingale in a filtration of its own (Henzi & Ziegel,
erratum to Biometrika 109 (2022); Choe & Ramdas 2024, arXiv 2402.09698). By Ville's inequality each of `h`
streams reaches h/alpha with probability at most alpha/h. The largest stream divided by h therefore ever
reaches 1/alpha with probability at most alpha, whatever the dependence between streams.
"""

from collections.abc import Collection, Mapping

import numpy as np

from monitoring.change import Evidence


def robust(log_e: float, most: float, exceptional: float) -> float:
    """The log e-value of a check, for a null hypothesis that a share `exceptional` of checks may violate.

    `most` is log K.
    """
    return float(min(log_e, most) - np.log1p(exceptional * np.expm1(most)))


def evidence_of_streams(
    log_e_values: Mapping[int, float], streams: int, others: Collection[int] = ()
) -> float:
    """Log evidence for a change after the newest check; alarm where it reaches log(1/alpha).

    `log_e_values` has those of each check by its number. The stream of a check is its number modulo
    `streams`. A check that was not made is no evidence. `others` are the numbers of checks of other models,
    at which no change for this model can begin. 0 without checks.
    """
    if not log_e_values:
        return 0.0
    newest = []
    for stream in range(streams):
        evidence, found = Evidence(), 0.0
        for number in sorted({*log_e_values, *others}):
            if number % streams != stream:
                continue
            if number in log_e_values:
                found = evidence.add(log_e_values[number])
            else:
                evidence.skip()
        newest.append(found)
    return max(newest) - float(np.log(streams))
