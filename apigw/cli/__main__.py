import sys

from apigw.cli.main import main

sys.exit(main())
