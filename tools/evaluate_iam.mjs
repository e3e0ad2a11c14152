// Evaluates IAM requests with @cloud-copilot/iam-simulate: a JSON array of simulations on standard input, results out.
//
// Each simulation is what the engine takes, with an `id`. Each result is {id, decision, denied, granted}, the last two
// lists of {policy, statement}, or {id, error}; `decision` is Allowed, ImplicitlyDenied or ExplicitlyDenied.
import { getDenialReasons, getGrantReasons, runSimulation } from '@cloud-copilot/iam-simulate'
import { readFileSync } from 'node:fs'

const named = ({ policyType, policyIdentifier, statementId }) => ({
  policy: policyIdentifier ?? policyType,
  statement: statementId ?? null
})
const simulations = JSON.parse(readFileSync(0, 'utf8'))
const results = []
for (const { id, ...simulation } of simulations) {
  const outcome = await runSimulation(simulation, {})
  if (outcome.resultType === 'error') {
    results.push({ id, error: outcome.errors })
    continue
  }
  const analyses = outcome.resultType === 'single' ? [outcome.result] : outcome.results
  results.push({
    id,
    decision: outcome.overallResult,
    denied: analyses.flatMap(({ analysis }) => getDenialReasons(analysis)).map(named),
    granted: analyses.flatMap(({ analysis }) => getGrantReasons(analysis)).map(named),
    ignored: analyses.flatMap(({ ignoredContextKeys }) => ignoredContextKeys ?? [])
  })
}
process.stdout.write(JSON.stringify(results))
