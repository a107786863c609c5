# Targets of deploy/; the Makefile includes this file.
DEPLOY := var/deploy

.PHONY: deploy-tools lint-deploy lock-deploy
deploy-tools: $(DEPLOY)/.installed  ## checkov, podman-compose and the provider that stands in for AWS, in var/deploy

$(DEPLOY)/.installed: deploy/requirements.txt deploy/constraints.txt deploy/terraform/provider.txt $(wildcard deploy/terraform/stand_in/*.py)
	$(PYTHON) -m venv $(DEPLOY)/venv
	$(DEPLOY)/venv/bin/python -m pip install --quiet --constraint deploy/constraints.txt --requirement deploy/requirements.txt
	$(DEPLOY)/venv/bin/python -m pip download --quiet --no-deps --dest $(DEPLOY)/wheels --requirement deploy/terraform/provider.txt
	$(DEPLOY)/venv/bin/python deploy/terraform/stand_in/install.py $(DEPLOY)/terraform $(DEPLOY)/wheels/cdktn_provider_aws-*.whl
	rm -r $(DEPLOY)/wheels
	touch $@

lint-deploy: deploy-tools  ## Terraform, Kong, ingress, manifests and compose, each by its own tool; names what is not here
	$(DEPLOY)/venv/bin/python -m deploy.lint $(ARGS)

lock-deploy:  ## write deploy/constraints.txt anew
	rm -rf var/lock; $(PYTHON) -m venv var/lock; var/lock/bin/python -m pip install --quiet --requirement deploy/requirements.txt
	{ echo "# Every package of the environment of deploy/requirements.txt, at the version that is tested. Made by \`make lock-deploy\`."; \
	  var/lock/bin/python -m pip freeze; } > deploy/constraints.txt; rm -rf var/lock
